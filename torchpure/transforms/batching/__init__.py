"""Many members at once: vmap, chunks, devices, collectives."""

from ._chunks import check_chunk as check_chunk
from ._collectives import all_gather as all_gather
from ._collectives import axis_index as axis_index
from ._collectives import pmax as pmax
from ._collectives import pmean as pmean
from ._collectives import pmin as pmin
from ._collectives import psum as psum
from ._vmap import Mapping as Mapping
from ._vmap import vmap as vmap

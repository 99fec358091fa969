"""What is around a call in this thread: named axes, active members, chunk offset, callbacks on or off."""

from ._axis_env import Around as Around
from ._axis_env import axes as axes
from ._axis_env import axis_open as axis_open
from ._axis_env import differ_over as differ_over
from ._axis_env import gone as gone
from ._axis_env import meetings as meetings
from ._axis_env import met as met
from ._axis_env import next_only_for as next_only_for
from ._axis_env import only_for as only_for
from ._axis_env import replaced_over as replaced_over
from ._axis_env import taking as taking
from ._axis_env import without as without
from ._callbacks import is_quiet as is_quiet
from ._callbacks import quiet as quiet
from ._chunk_offset import Start as Start
from ._chunk_offset import start_of as start_of
from ._chunk_offset import starting as starting

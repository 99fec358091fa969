"""Functions with rules of their own: derivative, batch, memory."""

from ._custom_jvp import custom_jvp as custom_jvp
from ._custom_vjp import custom_vjp as custom_vjp
from ._custom_vmap import custom_vmap as custom_vmap
from ._remat import remat as remat
from ._remat import remat_name as remat_name
from ._remat import runs as runs

"""Functions with custom rules: for derivatives, for batches, for memory."""

from ._custom_jvp import custom_jvp as custom_jvp
from ._custom_vjp import custom_vjp as custom_vjp
from ._custom_vmap import custom_vmap as custom_vmap
from ._remat import recomputation_of as recomputation_of
from ._remat import remat as remat
from ._remat import remat_name as remat_name

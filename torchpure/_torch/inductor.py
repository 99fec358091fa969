"""torch's compiler, and what it reads: takes seconds to import, so import it in the function that needs it."""

from torch._functorch._aot_autograd.schemas import OutputType as OutputType
from torch._inductor.compile_fx import compile_fx as compile_fx
from torch._inductor.compile_fx import compile_fx_inner as compile_fx_inner
from torch._inductor.decomposition import select_decomp_table as select_decomp_table
from torch.fx.experimental.symbolic_shapes import ShapeEnv as ShapeEnv

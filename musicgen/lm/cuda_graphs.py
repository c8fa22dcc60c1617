"""Capture of a step in a CUDA graph: one launch in place of a thousand."""

import logging

import torch

from .static import Replay

log = logging.getLogger(__name__)

_WARM_UPS = 2  # what cuBLAS and the allocator set up on first use cannot be captured


class CudaGraphs:
    """A `Capture`, for the steps of one run. They share a pool of memory, for they never run at the same time."""

    def __init__(self, device: torch.device):
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Replay) -> Replay:
        """Run the step, capture it, and give back its replay. The step is run as it is where capture fails."""
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            try:
                # ComfyUI's other threads may use the GPU meanwhile; "global" would fail the capture, or them.
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    step()
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                log.warning("the decoding step could not be captured in a CUDA graph, and runs without: %s", error)
                torch.cuda.synchronize()
                return step
        return graph.replay

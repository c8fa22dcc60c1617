"""The captured step: the codes of the plain loop, captured once a shape of run, and never beyond the run.

`FakeGraph` stands for a CUDA graph: it repeats the operators that it saw, on the memory that they had.
"""

import contextlib
import inspect
import types

import pytest
import torch
from comfyui_musicgen.musicgen.accel import cuda_graph
from comfyui_musicgen.musicgen.accel.cuda_graph import CudaGraphStepper, buckets
from comfyui_musicgen.musicgen.lm import PlainStepper, RowNoise, Sampling, generate_codes
from comfyui_musicgen.tests.lm import tiny_lm
from comfyui_musicgen.tests.lm.tiny_lm import CARD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MODES = {
    "top-k": Sampling(20),
    "all": Sampling(0),
    "top-p": Sampling(0, 0.8),
    "hot": Sampling(20, 0.0, 1.7),
    "greedy": Sampling(temperature=0.0),
}
N_FRAMES, N_STEPS = 20, 23  # the delay adds three columns


class FakeGraph(TorchDispatchMode):
    """Records operators while it is entered; `replay` repeats them on the same tensors, without any Python of the step."""

    def __init__(self):
        super().__init__()
        self._operators = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        assert "local_scalar" not in operator.name(), "the step waits for a number"
        result = operator(*args, **(kwargs or {}))
        self._operators.append((operator, args, kwargs or {}, result))
        return result

    @property
    def n_columns(self):
        """The most keys that an attention reads."""
        attentions = [args for operator, args, _, _ in self._operators if "scaled_dot_product" in operator.name()]
        return max(args[1].shape[2] for args in attentions)

    def replay(self):
        for operator, args, kwargs, result in self._operators:
            again = operator(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Captures:
    """Makes fake graphs for a stepper, and keeps what was captured and replayed."""

    def __init__(self):
        self.graphs, self.replayed = [], []

    def __call__(self, device):
        assert device == torch.device("cpu")
        return self.capture

    def capture(self, step):
        step()  # as a warm-up does
        graph = FakeGraph()
        with graph:
            step()
        self.graphs.append(graph)

        def replay():
            self.replayed.append(graph)
            graph.replay()

        return replay


@pytest.fixture
def captures():
    return Captures()


def codes(lm, stepper=None, lengths=(5,), n_frames=N_FRAMES, sampling=MODES["top-k"], guided=True, seed=3, **options):
    """Codes by the stepper, which stays open; by the plain loop without one."""
    null = tiny_lm.nulls(lengths) if guided else None
    noise = RowNoise(seed, len(lengths), lm.config.n_codebooks, CARD)
    return generate_codes(
        lm, tiny_lm.streams(lm, lengths), null, n_frames, sampling, noise, 3.0 if guided else 1.0, stepper=stepper, **options
    )  # fmt: skip


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("guided", [True, False])
def test_codes_are_those_of_the_plain_loop(captures, cross, mode, guided):
    """Rows of different lengths, so that padding counts."""
    lm = tiny_lm.make(cross)
    settings = {"lengths": (7, 2, 4), "sampling": MODES[mode], "guided": guided}
    assert torch.equal(codes(lm, CudaGraphStepper(lm, captures), **settings), codes(lm, **settings))
    assert len(captures.replayed) == N_STEPS - 1 and len(captures.graphs) == 1


@pytest.mark.parametrize("n_codebooks", [4, 8])
@pytest.mark.parametrize("n_prompt", [1, 12, 19])
def test_prompts_are_continued(captures, n_codebooks, n_prompt):
    lm = tiny_lm.make(n_codebooks=n_codebooks)
    prompt = torch.randint(CARD, (1, n_codebooks, n_prompt))
    continued = codes(lm, CudaGraphStepper(lm, captures), prompt=prompt)
    assert torch.equal(continued, codes(lm, prompt=prompt)) and torch.equal(continued[..., :n_prompt], prompt)


def test_half_precision_is_captured_too(captures):
    lm = tiny_lm.make(precision="bfloat16")
    streams = tiny_lm.streams(lm, (7, 2))
    captured, plain = (tiny_lm.logits_of(each, streams) for each in (CudaGraphStepper(lm, captures), PlainStepper(lm)))
    assert torch.nn.functional.cosine_similarity(captured.flatten(), plain.flatten(), dim=0) > 0.9999


# --- buckets


def test_a_long_piece_passes_from_bucket_to_bucket(captures):
    lm = tiny_lm.make(n_layers=1)
    assert torch.equal(codes(lm, CudaGraphStepper(lm, captures), n_frames=300), codes(lm, n_frames=300))
    assert [graph.n_columns for graph in captures.graphs] == [256, 512]


def test_buckets_double_and_end_with_the_cache():
    assert buckets(256) == [256]
    assert buckets(768) == [256, 512, 768]
    assert buckets(1536) == [256, 512, 1024, 1536]


def test_the_step_reads_no_more_of_the_cache_than_its_bucket(captures):
    lm = tiny_lm.make(n_layers=1)
    tiny_lm.logits_of(CudaGraphStepper(lm, captures), tiny_lm.streams(lm, (5,)), n_known=254, n=300)
    assert [graph.n_columns for graph in captures.replayed[:4]] == [256, 256, 512, 512]


# --- reuse


def test_windows_of_one_run_capture_once(captures):
    lm = tiny_lm.make()
    stepper = CudaGraphStepper(lm, captures)
    codes(lm, stepper)
    for settings in (
        {"seed": 9},
        {"lengths": (6,)},
        {"n_frames": 50},
        {"sampling": Sampling(20, 0.0, 0.7)},
        {"prompt": torch.randint(CARD, (1, 4, 10))},
    ):
        assert torch.equal(codes(lm, stepper, **settings), codes(lm, **settings)), settings
    assert len(captures.graphs) == 1


def test_windows_of_another_shape_are_captured_anew(captures):
    lm = tiny_lm.make()
    stepper = CudaGraphStepper(lm, captures)
    for settings in ({}, {"lengths": (5, 5)}, {"guided": False}, {"lengths": (20,)}, {"n_frames": 300}, {}):
        before = len(captures.graphs)
        assert torch.equal(codes(lm, stepper, **settings), codes(lm, **settings)), settings
        assert len(captures.graphs) > before, settings


def moves_all(lm):
    """As `module.to(device)` does."""
    lm._apply(lambda tensor: tensor.clone() + 0.01)


def moves_one(lm):
    """As ComfyUI's patcher may: layer by layer, behind the model's back."""
    layer = lm.layers[1].up
    layer.weight = torch.nn.Parameter(1.5 * layer.weight.data, requires_grad=False)


@pytest.mark.parametrize("move", [moves_all, moves_one])
def test_nothing_is_captured_beyond_a_run(captures, move):
    """Weights may move between runs, and be others: a graph would go on with those that it saw."""
    lm = tiny_lm.make()
    stepper = CudaGraphStepper(lm, captures)
    with stepper:
        first = codes(lm, stepper)
    move(lm)
    with stepper:
        second = codes(lm, stepper)
    assert len(captures.graphs) == 2
    assert torch.equal(second, codes(lm)) and not torch.equal(second, first)


def test_a_fake_graph_is_bound_to_its_memory(captures):
    """Else the tests above could not fail."""
    lm = tiny_lm.make()
    stepper = CudaGraphStepper(lm, captures)
    assert torch.equal(codes(lm, stepper), codes(lm))
    moves_one(lm)
    assert not torch.equal(codes(lm, stepper), codes(lm)), "it goes on with the old weights"


# --- progress and Cancel


def test_progress_is_told_after_every_step(captures):
    lm, seen = tiny_lm.make(), []
    codes(lm, CudaGraphStepper(lm, captures), on_step=lambda done, total: seen.append((done, total)))
    preparing = 2 * len(lm.layers)  # the text and the cache of each layer
    assert seen == [(0, N_STEPS)] * preparing + [(done, N_STEPS) for done in range(1, N_STEPS + 1)]


def test_a_cancelled_run_leaves_nothing_behind(captures):
    lm = tiny_lm.make()
    stepper = CudaGraphStepper(lm, captures)

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        if done > 4:
            raise Cancelled

    with pytest.raises(Cancelled), stepper:
        codes(lm, stepper, n_frames=100, on_step=cancel)
    with stepper:
        assert torch.equal(codes(lm, stepper), codes(lm))


# --- capture on a GPU


class FakeCuda:
    """What capturing takes of torch.cuda, where there is none: counts, and fails a capture as told."""

    OutOfMemoryError = torch.cuda.OutOfMemoryError

    def __init__(self, failure=None):
        self.failure, self.capturing, self.n_replayed, self.modes = failure, False, 0, []

    def graph_pool_handle(self):
        return 7

    def Stream(self):
        return types.SimpleNamespace(wait_stream=lambda other: None)

    current_stream = Stream

    def CUDAGraph(self):
        return types.SimpleNamespace(replay=lambda: setattr(self, "n_replayed", self.n_replayed + 1))

    def device(self, device):
        return contextlib.nullcontext()

    stream = device

    def synchronize(self):
        pass

    @contextlib.contextmanager
    def graph(self, graph, **options):
        inspect.signature(torch.cuda.graph.__init__).bind(None, graph, **options)  # the real one takes them
        self.modes.append(options["capture_error_mode"])
        self.capturing = True
        yield
        self.capturing = False
        if self.failure:
            raise self.failure


def captured_with(monkeypatch, failure=None):
    """The fake, what CudaGraphs gave back for a step, for each of its runs whether it was captured, and the step."""
    cuda, runs = FakeCuda(failure), []
    monkeypatch.setattr(cuda_graph.torch, "cuda", cuda)

    def step():
        runs.append(cuda.capturing)

    return cuda, cuda_graph.CudaGraphs(torch.device("cuda"))(step), runs, step


def test_a_step_is_warmed_up_captured_and_replayed(monkeypatch):
    cuda, replay, runs, _ = captured_with(monkeypatch)
    assert runs == [False, False, True]
    assert cuda.modes == ["thread_local"], "ComfyUI's other threads may use the GPU during a capture"
    replay()
    assert cuda.n_replayed == 1 and len(runs) == 3


def test_a_step_that_cannot_be_captured_runs_as_it_is(monkeypatch, caplog):
    cuda, replay, runs, step = captured_with(monkeypatch, RuntimeError("operation not permitted"))
    assert replay is step and "operation not permitted" in caplog.text
    replay()
    assert cuda.n_replayed == 0 and runs == [False, False, True, False]


def test_a_gpu_without_memory_for_a_capture_says_so(monkeypatch):
    with pytest.raises(torch.cuda.OutOfMemoryError):
        captured_with(monkeypatch, torch.cuda.OutOfMemoryError("none left"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize("mode", MODES)
def test_graphed_equals_eager_on_cuda(mode, cross):
    lm = tiny_lm.make(cross).cuda()
    settings = {"lengths": (7, 2, 4), "n_frames": 300, "sampling": MODES[mode]}
    eager = codes(lm, CudaGraphStepper(lm, lambda device: lambda step: step), **settings)
    with CudaGraphStepper(lm) as stepper:
        assert torch.equal(codes(lm, stepper, **settings), eager)
    lm.cpu()
    lm.cuda()
    with CudaGraphStepper(lm) as stepper:
        assert torch.equal(codes(lm, stepper, **settings), eager)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_captured_logits_are_the_plain_ones_on_cuda():
    lm = tiny_lm.make().cuda()
    streams = tiny_lm.streams(lm, (7, 2, 4))
    logits = [tiny_lm.logits_of(stepper(lm), streams, n=40) for stepper in (CudaGraphStepper, PlainStepper)]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)

"""One small file a peer. Adding one: a file here, its requirements, an entry below."""

from benchmarks.client.peer import Peer
from benchmarks.client.peers.bakeoff import Bakeoff, BakeoffInStep
from benchmarks.client.peers.guidellm import GuideLLM
from benchmarks.client.peers.inference_perf import InferencePerf
from benchmarks.client.peers.locust_users import LocustIterLines, LocustReadline, OpenAISdk
from benchmarks.client.peers.vllm_bench import VllmBench

PEERS: tuple[Peer, ...] = (
    Bakeoff(),
    BakeoffInStep(),
    VllmBench(),
    InferencePerf(),
    GuideLLM(),
    LocustReadline(),
    LocustIterLines(),
    OpenAISdk(),
)

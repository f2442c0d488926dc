"""What reports know of cards is what was measured on them."""

import pytest

from kernels.speeds import TARGET, speeds, text


def row(kernel, length, tflops, causal=True):
    return {"kernel": kernel, "dtype": "float16", "dim": 128, "causal": causal, "seqlen": length, "tflops": tflops}


def bench(*runs, card="NVIDIA H200"):
    return {"card": card, "runs": [{"run": number, "rows": rows} for number, rows in enumerate(runs)]}


def test_the_committed_file_is_what_the_measurements_make():
    assert TARGET.read_text(encoding="utf-8") == text(), "run `python -m kernels.speeds` and commit what it writes"


def test_medians_over_runs_and_the_best_library_at_each_length():
    runs = [
        [
            row("hopper", 512, ours),
            row("cudnn", 512, 100.0),
            row("fa3", 512, 90.0),
            row("fa3", 1024, 200.0),
            row("hopper", 1024, 1.0, causal=False),
            row("swizzle", 1024, 5.0),
        ]
        for ours in (300.0, 320.0, 310.0)
    ]
    assert speeds([bench(*runs)])["cards"] == {
        "NVIDIA H200": {
            "limit_tflops": 989.4,
            "limit_source": "NVIDIA's data sheet: 16-bit tensor cores, dense",
            "causal": {
                "128": {"float16": {"kernel": {"512": 310.0}, "library": {"512": 100.0, "1024": 200.0}}},
            },
        }
    }


@pytest.mark.parametrize(
    ("benches", "words"),
    [
        ([bench(card="NVIDIA H200"), bench(card="NVIDIA H200")], "two files hold measurements of a NVIDIA H200"),
        ([bench(card="Imaginary 1")], "the limit of a Imaginary 1 is not known: add it to kernels/cards.py"),
    ],
)
def test_what_cannot_be_is_refused(benches, words):
    with pytest.raises(ValueError, match=words):
        speeds(benches)

import threading
import time

from loadgen.settings import Paths
from stack import setup


def test_two_commands_that_need_one_environment_make_it_once(tmp_path, monkeypatch, capsys):
    lock = tmp_path / "grafana" / "annotator" / "requirements.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("package==1")
    paths, at_work, most, ran, said = Paths(tmp_path), [], [], [], []
    first_is_in = threading.Event()

    def run(command, **_):
        at_work.append(command)
        most.append(len(at_work))
        first_is_in.set()
        end = time.monotonic() + 60
        while len(at_work) < 2 and "another command is making it" not in "".join(said) and time.monotonic() < end:
            said.append(capsys.readouterr().out)
            time.sleep(0.01)
        ran.append(command)
        (paths.venv(setup.ANNOTATOR) / "bin").mkdir(parents=True, exist_ok=True)
        (paths.venv(setup.ANNOTATOR) / "bin" / "python").touch()
        at_work.pop()
        return True

    monkeypatch.setattr(setup, "run_logged", run)
    monkeypatch.setattr(setup.sources, "run_logged", run)
    both = [threading.Thread(target=setup.ensure_venv, args=(paths, setup.ANNOTATOR)) for _ in range(2)]
    both[0].start()
    assert first_is_in.wait(60)
    both[1].start()
    for each in both:
        each.join()
    assert max(most) == 1
    assert len(ran) == 2, "an environment and what is installed into it, once"
    assert "another command is making it" in "".join(said)

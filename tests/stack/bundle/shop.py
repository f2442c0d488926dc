"""Small real wheels, and what pip would do with them."""

import base64
import hashlib
import zipfile

TAG = "py3-none-any"


def wheel(folder, name, version="1.0", tag=TAG):
    """Make a wheel with one module of its name; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path, about = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{name},sha256={_digest(text)},{len(text)}\n" for name, text in files.items())
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(zipfile.ZipInfo(inside), text)
    return path


def _digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def lock(path, *wheels, marker=""):
    """Write a lock file of these wheels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for each in wheels:
        name, version, *_ = each.name.split("-")
        digest = hashlib.sha256(each.read_bytes()).hexdigest()
        lines.append(f"{name}=={version}{marker} \\\n    --hash=sha256:{digest}\n")
    path.write_text("".join(lines), encoding="utf-8")

"""Makes wheels of the library `orchestra`, as an index would have them: 1.0.0, 1.1.0, and 2.0.0, which cannot be imported.

use: wheels.py DIRECTORY
"""
import base64
import hashlib
import pathlib
import sys
import zipfile

SOURCE = '''VERSION = "{version}"
{more}

def conduct(agent, model):
    return agent(model)
'''


def wheel(directory, version, more=""):
    info = f"orchestra-{version}.dist-info"
    files = {
        "orchestra/__init__.py": SOURCE.format(version=version, more=more),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: orchestra\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: wheels\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digest = lambda text: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    record = "".join(f"{name},sha256={digest(text)},{len(text.encode())}\n" for name, text in files.items())
    with zipfile.ZipFile(directory / f"orchestra-{version}-py3-none-any.whl", "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(name, text)


directory = pathlib.Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
wheel(directory, "1.0.0")
wheel(directory, "1.1.0")
wheel(directory, "2.0.0", "import orchestra_core  # which its metadata forgot to require")

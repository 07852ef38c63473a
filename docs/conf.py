"""How Sphinx builds these pages: ``make docs``. No network is used, and the pages load nothing from elsewhere."""

import sys
from pathlib import Path

import rlctl

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "rlctl"
author = "the authors of rlctl"
release = rlctl.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"rlctl {release}"
html_static_path = ["_static"]
html_css_files = ["rlctl.css"]
html_show_copyright = False
html_copy_source = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
add_module_names = False

# Names of other projects; looking them up would need the network.
nitpick_ignore_regex = [
    ("py:.*", r"(numpy|np|gymnasium|torch|stable_baselines3|pydantic|collections|typing|pathlib|enum|rich)\b.*"),
    ("py:.*", r"(abc|concurrent|contextlib)\..*"),
    # Names inside of the framework, and parts of annotations that Sphinx cuts in two.
    ("py:.*", r"rlctl\.executors\.(engine\._T|dispatch\.Dispatcher|recovery\.History|event_log\.Journal)"),
    ("py:.*", r"rlctl\.(core\.runner\.TaskRunner|bundle\.manifest\._Part)"),
    ("py:.*", r"rlctl\.config\.schema\.\w+Section"),
    ("py:.*", r"(Intracomm|Journal|TaskRunner|Allocation|tuple\[str)"),
    ("py:.*", r"(NDArray|ArrayLike|Path|Any|Protocol|BaseModel|Callable|Mapping|Sequence|.*\.NDArray)(\[.*)?"),
]

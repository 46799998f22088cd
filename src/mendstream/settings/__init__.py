"""Every setting with its default: read once, at the door, from defaults < file < environment < command line.

Cheap to import: nothing here needs numpy or Arrow. `LiveConfig` (what healing may turn) is another thing.
"""

from mendstream.settings.backends import mlflow_uri, models_dir, store_url
from mendstream.settings.fields import FIELD_OF, FIELDS, Field
from mendstream.settings.groups import Settings
from mendstream.settings.load import DOTENV, FILE, Loaded, load, to_environment
from mendstream.settings.secret import Secret

__all__ = [
    "DOTENV",
    "FIELDS",
    "FIELD_OF",
    "FILE",
    "Field",
    "Loaded",
    "Secret",
    "Settings",
    "load",
    "mlflow_uri",
    "models_dir",
    "store_url",
    "to_environment",
]

"""The one thing that pyproject.toml cannot say: configs/ lies beside the package here and inside it when installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["jepa_world_model", "jepa_world_model.*"]), "jepa_world_model.configs"],
    package_dir={"jepa_world_model.configs": "configs"},
    package_data={
        "jepa_world_model": ["py.typed", "diagnostics/assets/*", "losses/*.c", "models/*.c"],
        "jepa_world_model.configs": ["*.toml", "recipes/*.toml"],
    },
)

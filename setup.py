"""Packaging; the tools' settings stand in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
UI = ["starlette>=0.40", "uvicorn>=0.30", "plotly>=6"]
INIT = (HERE / "skelebot" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'__version__ = "([^"]+)"', INIT)
assert VERSION, "skelebot/__init__.py must name the version"

setup(
    name="skelebot",
    version=VERSION[1],
    description="One command-line interface for every machine-learning project",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the Skelebot authors",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["skelebot", "skelebot.*"]),
    package_data={
        "skelebot": [
            "py.typed",
            "image/*.R",
            "runners/docker/*.sh",
            "runners/kubernetes/*.sh",
            "components/kerberos/*.sh",
            "page/templates/*",
            "page/static/*",
            "templates/*",
            "templates/*/*",
        ]
    },
    python_requires=">=3.10",
    # Each has its line in docs/architecture.md.
    install_requires=[
        "PyYAML>=6.0",
        "psutil>=6.0",
        "packaging>=23",
        "boto3>=1.36",
        "requests>=2.31",
        "semver>=3.0",
        "tqdm>=4.66",
        "rich>=13.7",
        "Jinja2>=3.1",
        "click>=8.1",
        "python-dotenv>=1.0",
        "watchfiles>=1.0",
        'tomli>=2; python_version < "3.11"',
    ],
    extras_require={
        "ui": UI,
        "optuna": ["optuna>=4"],
        "test": [
            *UI,
            "pytest>=8",
            "pytest-rerunfailures>=16",
            "pytest-xdist>=3.5",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "jsonschema>=4.20",
            "kubernetes-validate>=1.37",
            "ruff>=0.8,<1",
            "mypy>=1.11,<3",
            "types-PyYAML",
            "types-psutil",
            "types-jsonschema",
            "types-requests",
            "types-tqdm",
            "moto[server]>=5",
            "selenium>=4.15",
            "optuna>=4",
        ],
    },
    entry_points={"console_scripts": ["skelebot=skelebot.__main__:run"]},
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Software Development :: Build Tools",
    ],
)

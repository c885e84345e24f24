//! The TOML file: defaults, then the file, then the environment.

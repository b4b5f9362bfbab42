"""Validates a config.json against the OCI runtime specification's own JSON schema, with a validator that is not ours.

    python3 validate_oci_config.py SCHEMA_FOLDER CONFIG

The schema files come from the package golang-github-opencontainers-specs-dev, the validator from python3-jsonschema.
"""
import json
import pathlib
import sys

import jsonschema


def main():
    folder, config = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    main_schema = folder / "config-schema.json"
    schema = json.loads(main_schema.read_text())
    resolver = jsonschema.RefResolver(base_uri=main_schema.as_uri(), referrer=schema)
    validator = jsonschema.Draft4Validator(schema, resolver=resolver)
    errors = sorted(validator.iter_errors(json.loads(config.read_text())), key=lambda error: list(error.path))
    for error in errors:
        print("/" + "/".join(map(str, error.path)), error.message, file=sys.stderr)
    return 1 if errors else 0


sys.exit(main())

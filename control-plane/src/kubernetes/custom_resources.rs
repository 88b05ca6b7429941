//! Our documents as custom resources: schemas and rules from their types.

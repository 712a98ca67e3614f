"""Evidence, reference values, appraisal and result, in the terms of RATS (RFC 9334)."""

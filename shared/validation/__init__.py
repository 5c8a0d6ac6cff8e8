"""Pure rules: values in, a value or a refusal out. No I/O, no clock, no environment."""

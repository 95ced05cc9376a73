"""An outside plugin of the tests; installed by tests/end_to_end/test_kinds_of_models_in_the_stack.py."""

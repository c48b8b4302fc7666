"""Tests of what people look at: dashboard, rules, the landing page in a browser. No kernel is traced."""

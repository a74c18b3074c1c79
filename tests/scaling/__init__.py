"""Scaling measured: one trace against our policy and Ray's own, side by side on a real Ray with engines that only wait."""

"""Builders of uncompiled Keras models."""

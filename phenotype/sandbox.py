"""Disposable processes for bytes from outside."""

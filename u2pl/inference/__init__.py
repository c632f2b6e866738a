"""Whole images through a network: in one pass, by windows or at several scales, and their scores."""

"""The Hugging Face Hub: files of a repository, one commit in, one commit out; artifacts pulled, pushed and served.

A reference, `owner/name@revision`, is resolved to a commit once; every file is then fetched by that commit, into the
cache that all of the Hub's clients share.
"""

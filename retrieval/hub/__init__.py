"""Hugging Face Hub: download and upload of repositories, one commit at a time; artifacts pulled, pushed and served.

A reference, `owner/name@revision`, is resolved to a commit once. Every file is then fetched from that commit, into the
cache shared with the Hub's other clients.
"""

"""What is sent, and when: mixes, pictures, prepared requests and due times. Sends nothing.

Imports only `errors`.
"""

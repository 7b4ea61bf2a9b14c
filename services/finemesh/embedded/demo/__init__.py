"""`finemesh demo`: the main job on a mesh of its own, every step through gRPC, and a check of what was
promised.

It speaks to the mesh as any client does. It may import the client, the stubs and the room above.
"""

"""What every service stands on: gRPC server and channel, authentication, errors, telemetry, configuration,
objects, events and SQL.

May import `finemesh.core`, the generated stubs and the transports (grpc, nats, minio, sqlalchemy). It knows
no service.
"""

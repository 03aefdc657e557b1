//! The operator graph: protobuf, builder, automatic differentiation.

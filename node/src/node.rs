//! The whole node: started, served, stopped.

//! Small containers that know nothing of green threads.

//! Taking the dump, through `minidump-writer`, into anonymous memory.

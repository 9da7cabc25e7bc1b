;; What a compiler leaves when a dependency wants a clock and a C library.
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
  (import "env" "strlen" (func (param i32) (result i32)))
  (memory (export "memory") 1))

;; A component that reads the time of day. It must be refused before it is compiled, with the interface named.
(component
  (import "wasi:clocks/wall-clock@0.2.6" (instance $clock
    (type $moment (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $datetime (eq $moment)))
    (export "now" (func (result $datetime)))))
  (alias export $clock "now" (func $now))
  (export "now" (func $now)))

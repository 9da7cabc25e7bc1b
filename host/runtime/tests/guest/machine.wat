;; The machine that the tests of this crate run: it does what the first letter of a command's name says.
;; Written against the canonical ABI by hand, so that its fuel does not depend on a compiler.
;;
;;   p put (key length, key, value)    g get    d delete    R delete from a key on
;;   b get, then put: 16 bytes of key, then the value
;;   s scan (reverse flag, step, start), a write between scan and steps; answers the keys in order
;;   e event and timer    x cancel timer    S answer the seed    L log
;;   t put, then trap    P report a panic, then trap    l loop    r recurse    m grow    M grow beyond its maximum
;;   o emit without end    h call the host without end    c open cursors    C open and drop cursors
;;   w answer 8 MiB    W answer 48 MiB    n one outcome too few    v no such outcome    u not UTF-8
;;   k too long a key
(module
  (import "quorate:machine/kv@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "quorate:machine/kv@0.1.0" "scan" (func $scan (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "quorate:machine/kv@0.1.0" "[method]cursor.next" (func $next (param i32 i32 i32 i32)))
  (import "quorate:machine/kv@0.1.0" "[resource-drop]cursor" (func $drop_cursor (param i32)))
  (import "quorate:machine/kv-write@0.1.0" "write" (func $write (param i32 i32)))
  (import "quorate:machine/effects@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32 i32)))
  (import "quorate:machine/effects@0.1.0" "set-timer" (func $set_timer (param i32 i32 i64 i32 i32)))
  (import "quorate:machine/effects@0.1.0" "cancel-timer" (func $cancel_timer (param i32 i32)))
  (import "quorate:machine/diagnostics@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (import "quorate:machine/diagnostics@0.1.0" "panicked" (func $panicked (param i32 i32 i32 i32)))

  (memory (export "memory") 4 32768)
  (data (i32.const 1024) "test-guest")
  (data (i32.const 1040) "1.2.3")
  (data (i32.const 1056) "{}")
  (data (i32.const 1072) "raise")
  (data (i32.const 1088) "missing")
  (data (i32.const 1104) "~new")
  (data (i32.const 1120) "boom")
  (data (i32.const 1136) "guest.rs:7")
  (data (i32.const 1152) "\ff")
  (data (i32.const 1168) "params")
  (data (i32.const 1184) "m1")
  (data (i32.const 1200) "m2")
  ;; migrates-from: 1, 3, 4
  (data (i32.const 1216) "\01\00\00\00\03\00\00\00\04\00\00\00")
  ;; critical: one string
  (data (i32.const 1232) "\30\04\00\00\05\00\00\00")

  (global $heap (mut i32) (i32.const 8192))
  (global $hlc (mut i64) (i64.const 0))

  (func $alloc (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (if (i32.eq
              (memory.grow
                (i32.add
                  (i32.div_u
                    (i32.sub (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
                    (i32.const 65536))
                  (i32.const 1)))
              (i32.const -1))
          (then (unreachable)))))
    (local.get $at))

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (call $alloc (local.get 2) (local.get 3)))

  ;; write([put(key, value)])
  (func $put (param $key i32) (param $key_len i32) (param $value i32) (param $value_len i32)
    (local $op i32)
    (local.set $op (call $alloc (i32.const 4) (i32.const 24)))
    (i32.store8 (local.get $op) (i32.const 0))
    (i32.store offset=4 (local.get $op) (local.get $key))
    (i32.store offset=8 (local.get $op) (local.get $key_len))
    (i32.store offset=12 (local.get $op) (local.get $value))
    (i32.store offset=16 (local.get $op) (local.get $value_len))
    (call $write (local.get $op) (i32.const 1)))

  ;; write([delete(key)]) or write([delete-range(key, none)])
  (func $remove (param $kind i32) (param $key i32) (param $key_len i32)
    (local $op i32)
    (local.set $op (call $alloc (i32.const 4) (i32.const 24)))
    (i32.store8 (local.get $op) (local.get $kind))
    (i32.store offset=4 (local.get $op) (local.get $key))
    (i32.store offset=8 (local.get $op) (local.get $key_len))
    (i32.store8 offset=12 (local.get $op) (i32.const 0))
    (call $write (local.get $op) (i32.const 1)))

  (func $done (param $out i32) (param $at i32) (param $len i32)
    (i32.store8 (local.get $out) (i32.const 0))
    (i32.store offset=4 (local.get $out) (local.get $at))
    (i32.store offset=8 (local.get $out) (local.get $len)))

  ;; rejected(code, name, name); the record begins at $at
  (func $reject (param $at i32) (param $code i32) (param $name i32) (param $len i32)
    (i32.store (local.get $at) (local.get $code))
    (i32.store offset=4 (local.get $at) (local.get $name))
    (i32.store offset=8 (local.get $at) (local.get $len))
    (i32.store offset=12 (local.get $at) (local.get $name))
    (i32.store offset=16 (local.get $at) (local.get $len)))

  ;; get(key) into an outcome or a query's result, which look alike
  (func $answer_get (param $out i32) (param $key i32) (param $len i32)
    (local $found i32)
    (local.set $found (call $alloc (i32.const 4) (i32.const 12)))
    (call $get (local.get $key) (local.get $len) (local.get $found))
    (if (i32.load8_u (local.get $found))
      (then
        (call $done (local.get $out)
          (i32.load offset=4 (local.get $found)) (i32.load offset=8 (local.get $found))))
      (else
        (i32.store8 (local.get $out) (i32.const 1))
        (call $reject (i32.add (local.get $out) (i32.const 4)) (i32.const 7) (i32.const 1088) (i32.const 7)))))

  (func $open (param $start i32) (param $len i32) (param $reverse i32) (result i32)
    (call $scan (local.get $start) (local.get $len)
      (i32.const 0) (i32.const 0) (i32.const 0) (local.get $reverse)))

  (func $answer_scan (param $out i32) (param $body i32) (param $len i32)
    (local $cursor i32) (local $step i32) (local $at i32) (local $end i32) (local $keys i32) (local $keys_len i32)
    (local.set $keys (call $alloc (i32.const 1) (i32.const 4096)))
    (local.set $step (call $alloc (i32.const 4) (i32.const 8)))
    (local.set $cursor
      (call $open (i32.add (local.get $body) (i32.const 2)) (i32.sub (local.get $len) (i32.const 2))
        (i32.load8_u (local.get $body))))
    (call $put (i32.const 1104) (i32.const 4) (i32.const 0) (i32.const 0))
    (block $all
      (loop $more
        (call $next (local.get $cursor) (i32.load8_u offset=1 (local.get $body)) (i32.const 65536) (local.get $step))
        (br_if $all (i32.eqz (i32.load offset=4 (local.get $step))))
        (local.set $at (i32.load (local.get $step)))
        (local.set $end
          (i32.add (local.get $at) (i32.mul (i32.load offset=4 (local.get $step)) (i32.const 16))))
        (loop $pair
          (memory.copy (i32.add (local.get $keys) (local.get $keys_len))
            (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)))
          (local.set $keys_len (i32.add (local.get $keys_len) (i32.load offset=4 (local.get $at))))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))
          (br_if $pair (i32.lt_u (local.get $at) (local.get $end))))
        (br $more)))
    (call $drop_cursor (local.get $cursor))
    (call $done (local.get $out) (local.get $keys) (local.get $keys_len)))

  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (local.get 0)))

  (func $answer_big (param $out i32) (param $len i32)
    (local $at i32)
    (local.set $at (call $alloc (i32.const 1) (local.get $len)))
    (call $done (local.get $out) (local.get $at) (local.get $len)))

  ;; One command; the sum of the results is added to the number of outcomes.
  (func $command (param $out i32) (param $name i32) (param $name_len i32) (param $body i32) (param $len i32)
      (param $seed i32) (result i32)
    (local $letter i32) (local $i i32)
    (local.set $letter (i32.load8_u (local.get $name)))
    (call $done (local.get $out) (i32.const 0) (i32.const 0))
    (if (i32.eq (local.get $letter) (i32.const 98)) ;; b
      (then
        (call $answer_get (local.get $out) (local.get $body) (i32.const 16))
        (call $done (local.get $out) (i32.const 0) (i32.const 0))
        (call $put (local.get $body) (i32.const 16)
          (i32.add (local.get $body) (i32.const 16)) (i32.sub (local.get $len) (i32.const 16)))
        (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 112)) ;; p
      (then
        (local.set $i (i32.load8_u (local.get $body)))
        (call $put (i32.add (local.get $body) (i32.const 1)) (local.get $i)
          (i32.add (i32.add (local.get $body) (local.get $i)) (i32.const 1))
          (i32.sub (i32.sub (local.get $len) (local.get $i)) (i32.const 1)))
        (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 103)) ;; g
      (then (call $answer_get (local.get $out) (local.get $body) (local.get $len)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 100)) ;; d
      (then (call $remove (i32.const 1) (local.get $body) (local.get $len)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 82)) ;; R
      (then (call $remove (i32.const 2) (local.get $body) (local.get $len)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 115)) ;; s
      (then (call $answer_scan (local.get $out) (local.get $body) (local.get $len)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 101)) ;; e
      (then
        (call $emit (local.get $name) (local.get $name_len)
          (local.get $body) (local.get $len) (local.get $body) (local.get $len))
        (call $set_timer (local.get $body) (local.get $len) (i64.add (global.get $hlc) (i64.const 1))
          (local.get $body) (local.get $len))
        (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 120)) ;; x
      (then (call $cancel_timer (local.get $body) (local.get $len)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 83)) ;; S
      (then (call $done (local.get $out) (local.get $seed) (i32.const 16)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 76)) ;; L
      (then
        (call $log (i32.const 3) (local.get $name) (local.get $name_len) (local.get $body) (local.get $len))
        (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 116)) ;; t
      (then
        (call $put (local.get $body) (local.get $len) (local.get $body) (local.get $len))
        (unreachable)))
    (if (i32.eq (local.get $letter) (i32.const 80)) ;; P
      (then
        (call $panicked (i32.const 1120) (i32.const 4) (i32.const 1136) (i32.const 10))
        (unreachable)))
    (if (i32.eq (local.get $letter) (i32.const 108)) ;; l
      (then (loop $forever (br $forever))))
    (if (i32.eq (local.get $letter) (i32.const 114)) ;; r
      (then (drop (call $recurse (i32.const 0)))))
    (if (i32.eq (local.get $letter) (i32.const 109)) ;; m
      (then (loop $again (drop (memory.grow (i32.const 256))) (br $again))))
    (if (i32.eq (local.get $letter) (i32.const 77)) ;; M
      (then
        (if (i32.ne (memory.grow (i32.const 65535)) (i32.const -1)) (then (unreachable)))
        (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 111)) ;; o
      (then
        (loop $again
          (call $emit (i32.const 1024) (i32.const 10) (i32.const 0) (i32.const 1000) (i32.const 0) (i32.const 65536))
          (br $again))))
    (if (i32.eq (local.get $letter) (i32.const 104)) ;; h
      (then (loop $again (call $get (i32.const 0) (i32.const 0) (i32.const 4096)) (br $again))))
    (if (i32.eq (local.get $letter) (i32.const 99)) ;; c
      (then
        (loop $again
          (drop (call $open (i32.const 0) (i32.const 0) (i32.const 0)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $i) (i32.load8_u (local.get $body)))))
        (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 67)) ;; C
      (then
        (loop $again
          (call $drop_cursor (call $open (i32.const 0) (i32.const 0) (i32.const 0)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
        (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 119)) ;; w
      (then (call $answer_big (local.get $out) (i32.const 8388608)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 87)) ;; W
      (then (call $answer_big (local.get $out) (i32.const 50331648)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 110)) ;; n
      (then (return (i32.const -1))))
    (if (i32.eq (local.get $letter) (i32.const 118)) ;; v
      (then (i32.store8 (local.get $out) (i32.const 9)) (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 117)) ;; u
      (then
        (i32.store8 (local.get $out) (i32.const 1))
        (call $reject (i32.add (local.get $out) (i32.const 4)) (i32.const 200) (i32.const 1152) (i32.const 1))
        (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 107)) ;; k
      (then (call $get (i32.const 0) (i32.const 1025) (i32.const 4096)) (return (i32.const 0))))
    (unreachable))

  (func (export "quorate:machine/machine@0.1.0#apply")
      (param i32 i32 i64 i64 i64 i64 i64 i32) (param $commands i32) (param $count i32) (result i32)
    (local $i i32) (local $outcomes i32) (local $out i32) (local $answer i32) (local $seed i32)
    (global.set $hlc (local.get 4))
    (local.set $seed (call $alloc (i32.const 8) (i32.const 16)))
    (i64.store (local.get $seed) (local.get 5))
    (i64.store offset=8 (local.get $seed) (local.get 6))
    (local.set $outcomes (call $alloc (i32.const 4) (i32.mul (local.get $count) (i32.const 24))))
    (local.set $answer (call $alloc (i32.const 4) (i32.const 8)))
    (i32.store (local.get $answer) (local.get $outcomes))
    (i32.store offset=4 (local.get $answer) (local.get $count))
    (local.set $out (local.get $outcomes))
    (block $all
      (loop $each
        (br_if $all (i32.ge_u (local.get $i) (local.get $count)))
        (i32.store offset=4 (local.get $answer)
          (i32.add
            (i32.load offset=4 (local.get $answer))
            (call $command (local.get $out)
              (i32.load offset=24 (local.get $commands)) (i32.load offset=28 (local.get $commands))
              (i32.load offset=32 (local.get $commands)) (i32.load offset=36 (local.get $commands))
              (local.get $seed))))
        (local.set $out (i32.add (local.get $out) (i32.const 24)))
        (local.set $commands (i32.add (local.get $commands) (i32.const 40)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $each)))
    (local.get $answer))

  (func (export "quorate:machine/machine@0.1.0#describe") (result i32)
    (local $at i32)
    (;BEFORE-DESCRIBE;)
    (local.set $at (call $alloc (i32.const 4) (i32.const 44)))
    (i32.store (local.get $at) (i32.const 1024))
    (i32.store offset=4 (local.get $at) (i32.const 10))
    (i32.store offset=8 (local.get $at) (i32.const 1040))
    (i32.store offset=12 (local.get $at) (i32.const 5))
    (i32.store offset=16 (local.get $at) (i32.const 2))
    (i32.store offset=20 (local.get $at) (i32.const 1216))
    (i32.store offset=24 (local.get $at) (i32.const 3))
    (i32.store offset=28 (local.get $at) (i32.const 1232))
    (i32.store offset=32 (local.get $at) (i32.const 1))
    (i32.store offset=36 (local.get $at) (i32.const 1056))
    (i32.store offset=40 (local.get $at) (i32.const 2))
    (local.get $at))

  ;; Keeps the parameters under the key params; refuses those that begin with !, traps on ?.
  (func (export "quorate:machine/machine@0.1.0#init")
      (param i32 i32 i64 i64 i64 i64 i64 i32) (param $params i32) (param $len i32) (result i32)
    (local $answer i32)
    (local.set $answer (call $alloc (i32.const 4) (i32.const 24)))
    (call $put (i32.const 1168) (i32.const 6) (local.get $params) (local.get $len))
    (if (i32.eqz (local.get $len)) (then (return (local.get $answer))))
    (if (i32.eq (i32.load8_u (local.get $params)) (i32.const 63)) (then (unreachable)))
    (if (i32.eq (i32.load8_u (local.get $params)) (i32.const 33))
      (then
        (i32.store8 (local.get $answer) (i32.const 1))
        (call $reject (i32.add (local.get $answer) (i32.const 4)) (i32.const 300) (i32.const 1088) (i32.const 7))))
    (local.get $answer))

  ;; get, or a write that must not work, or a loop, or an answer of 8 MiB
  (func (export "quorate:machine/machine@0.1.0#query")
      (param $at i64) (param $name i32) (param $name_len i32) (param $body i32) (param $len i32) (result i32)
    (local $answer i32) (local $letter i32)
    (local.set $answer (call $alloc (i32.const 4) (i32.const 24)))
    (local.set $letter (i32.load8_u (local.get $name)))
    (if (i32.eq (local.get $letter) (i32.const 103)) ;; g
      (then (call $answer_get (local.get $answer) (local.get $body) (local.get $len))))
    (if (i32.eq (local.get $letter) (i32.const 112)) ;; p
      (then (call $put (local.get $body) (local.get $len) (local.get $body) (local.get $len))))
    (if (i32.eq (local.get $letter) (i32.const 101)) ;; e
      (then (call $cancel_timer (local.get $body) (local.get $len))))
    (if (i32.eq (local.get $letter) (i32.const 108)) ;; l
      (then (loop $forever (br $forever))))
    (if (i32.eq (local.get $letter) (i32.const 119)) ;; w
      (then (call $answer_big (local.get $answer) (i32.const 8388608))))
    (local.get $answer))

  ;; From 1: two steps, one key each. From 3: a step, then a refusal. From 4: without end.
  (func (export "quorate:machine/machine@0.1.0#migrate")
      (param i32 i32 i64 i64 i64 i64 i64 i32) (param $from i32) (param $resumes i32) (param i32 i32) (result i32)
    (local $answer i32)
    (local.set $answer (call $alloc (i32.const 4) (i32.const 24)))
    (if (i32.and (local.get $resumes) (i32.ne (local.get $from) (i32.const 4)))
      (then
        (call $put (i32.const 1200) (i32.const 2) (i32.const 0) (i32.const 0))
        (if (i32.eq (local.get $from) (i32.const 3))
          (then
            (i32.store8 (local.get $answer) (i32.const 1))
            (call $reject (i32.add (local.get $answer) (i32.const 4)) (i32.const 301) (i32.const 1088) (i32.const 7))
            (return (local.get $answer))))
        (i32.store8 offset=4 (local.get $answer) (i32.const 1))
        (return (local.get $answer))))
    (call $put (i32.const 1184) (i32.const 2) (i32.const 0) (i32.const 0))
    (i32.store8 offset=4 (local.get $answer) (i32.const 0))
    (i32.store offset=8 (local.get $answer) (i32.const 1184))
    (i32.store offset=12 (local.get $answer) (i32.const 2))
    (local.get $answer))
  (;MORE-EXPORTS;))

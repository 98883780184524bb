#include "textflag.h"

// SHA-256 of two messages with the SHA extensions (Intel 64 and IA-32 Architectures
// Software Developer's Manual, volume 1, "Intel SHA Extensions"). The two take turns
// every four rounds; what the instructions of one wait for, those of the other use.
//
// A state is kept in two registers as SHA256RNDS2 wants it, ABEF and CDGH, its message
// schedule in four, the words that come next first.

#define WK X0      // words plus constants of four rounds: SHA256RNDS2 takes no other
#define ABEF_A X1
#define CDGH_A X2
#define ABEF_B X3
#define CDGH_B X4
#define TMP X13
#define SWAP X15   // the order of bytes that PSHUFB gives to words

// LOADSTATE(from, abef, cdgh) loads a state.
#define LOADSTATE(from, abef, cdgh) \
	MOVOU   0(from), abef     \ // DCBA
	MOVOU   16(from), cdgh    \ // HGFE
	PSHUFD  $0xB1, abef, abef \ // CDAB
	PSHUFD  $0x1B, cdgh, cdgh \ // EFGH
	MOVOU   abef, TMP         \
	PALIGNR $8, cdgh, abef    \ // ABEF
	PBLENDW $0xF0, TMP, cdgh    // CDGH

// STORESTATE(abef, cdgh, to) is its inverse.
#define STORESTATE(abef, cdgh, to) \
	PSHUFD  $0x1B, abef, abef \ // FEBA
	PSHUFD  $0xB1, cdgh, cdgh \ // DCHG
	MOVOU   abef, TMP         \
	PBLENDW $0xF0, cdgh, abef \ // DCBA
	PALIGNR $8, TMP, cdgh     \ // HGFE
	MOVOU   abef, 0(to)       \
	MOVOU   cdgh, 16(to)

// ROUNDS(k, w, abef, cdgh) does four rounds with the words w.
#define ROUNDS(k, w, abef, cdgh) \
	MOVOU       w, WK                \
	PADDD       (16*k)(AX), WK       \
	SHA256RNDS2 WK, abef, cdgh       \
	PSHUFD      $0x0E, WK, WK        \
	SHA256RNDS2 WK, cdgh, abef

// FIRST(k, from, w, abef, cdgh) is ROUNDS with words of the message.
#define FIRST(k, from, w, abef, cdgh) \
	MOVOU  (16*k)(from), w \
	PSHUFB SWAP, w         \
	ROUNDS(k, w, abef, cdgh)

// SCHEDULE(before, w, next) ends the words that come after w.
#define SCHEDULE(before, w, next) \
	MOVOU      w, TMP          \
	PALIGNR    $4, before, TMP \
	PADDD      TMP, next       \
	SHA256MSG2 w, next

// BOTH(k, ...) does four rounds of each, and what comes after them of both schedules.
#define BOTH(k, a3, a0, a1, b3, b0, b1) \
	ROUNDS(k, a0, ABEF_A, CDGH_A) \
	ROUNDS(k, b0, ABEF_B, CDGH_B) \
	SCHEDULE(a3, a0, a1)          \
	SCHEDULE(b3, b0, b1)

// BEGIN begins the words that follow before by four.
#define BEGIN(a3, a0, b3, b0) \
	SHA256MSG1 a0, a3 \
	SHA256MSG1 b0, b3

// func extensions() uint32
TEXT ·extensions(SB), NOSPLIT, $0-4
	XORL  AX, AX
	CPUID
	XORL  BX, BX
	CMPL  AX, $7
	JCS   none
	MOVL  $7, AX
	XORL  CX, CX
	CPUID

none:
	MOVL  BX, ret+0(FP)
	RET

// func block2(a, b *[8]uint32, fromA, fromB *byte, blocks int)
TEXT ·block2(SB), NOSPLIT, $64-40
	MOVQ  a+0(FP), DI
	MOVQ  b+8(FP), SI
	MOVQ  fromA+16(FP), R8
	MOVQ  fromB+24(FP), R9
	MOVQ  blocks+32(FP), CX
	LEAQ  constants<>(SB), AX
	MOVOU swap<>(SB), SWAP
	LOADSTATE(DI, ABEF_A, CDGH_A)
	LOADSTATE(SI, ABEF_B, CDGH_B)
	TESTQ CX, CX
	JZ    done

loop:
	MOVOU ABEF_A, 0(SP)
	MOVOU CDGH_A, 16(SP)
	MOVOU ABEF_B, 32(SP)
	MOVOU CDGH_B, 48(SP)

	FIRST(0, R8, X5, ABEF_A, CDGH_A)
	FIRST(0, R9, X9, ABEF_B, CDGH_B)
	FIRST(1, R8, X6, ABEF_A, CDGH_A)
	FIRST(1, R9, X10, ABEF_B, CDGH_B)
	BEGIN(X5, X6, X9, X10)
	FIRST(2, R8, X7, ABEF_A, CDGH_A)
	FIRST(2, R9, X11, ABEF_B, CDGH_B)
	BEGIN(X6, X7, X10, X11)
	MOVOU  48(R8), X8
	PSHUFB SWAP, X8
	MOVOU  48(R9), X12
	PSHUFB SWAP, X12
	BOTH(3, X7, X8, X5, X11, X12, X9)
	BEGIN(X7, X8, X11, X12)
	BOTH(4, X8, X5, X6, X12, X9, X10)
	BEGIN(X8, X5, X12, X9)
	BOTH(5, X5, X6, X7, X9, X10, X11)
	BEGIN(X5, X6, X9, X10)
	BOTH(6, X6, X7, X8, X10, X11, X12)
	BEGIN(X6, X7, X10, X11)
	BOTH(7, X7, X8, X5, X11, X12, X9)
	BEGIN(X7, X8, X11, X12)
	BOTH(8, X8, X5, X6, X12, X9, X10)
	BEGIN(X8, X5, X12, X9)
	BOTH(9, X5, X6, X7, X9, X10, X11)
	BEGIN(X5, X6, X9, X10)
	BOTH(10, X6, X7, X8, X10, X11, X12)
	BEGIN(X6, X7, X10, X11)
	BOTH(11, X7, X8, X5, X11, X12, X9)
	BEGIN(X7, X8, X11, X12)
	BOTH(12, X8, X5, X6, X12, X9, X10)
	BEGIN(X8, X5, X12, X9)
	BOTH(13, X5, X6, X7, X9, X10, X11)
	BOTH(14, X6, X7, X8, X10, X11, X12)
	ROUNDS(15, X8, ABEF_A, CDGH_A)
	ROUNDS(15, X12, ABEF_B, CDGH_B)

	MOVOU 0(SP), X5
	PADDD X5, ABEF_A
	MOVOU 16(SP), X6
	PADDD X6, CDGH_A
	MOVOU 32(SP), X7
	PADDD X7, ABEF_B
	MOVOU 48(SP), X8
	PADDD X8, CDGH_B
	ADDQ  $64, R8
	ADDQ  $64, R9
	DECQ  CX
	JNZ   loop

done:
	STORESTATE(ABEF_A, CDGH_A, DI)
	STORESTATE(ABEF_B, CDGH_B, SI)
	RET

DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), NOPTR|RODATA, $16

// The constants of the rounds (FIPS 180-4, 4.2.2).
DATA constants<>+0(SB)/8, $0x71374491428a2f98
DATA constants<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA constants<>+16(SB)/8, $0x59f111f13956c25b
DATA constants<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA constants<>+32(SB)/8, $0x12835b01d807aa98
DATA constants<>+40(SB)/8, $0x550c7dc3243185be
DATA constants<>+48(SB)/8, $0x80deb1fe72be5d74
DATA constants<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA constants<>+64(SB)/8, $0xefbe4786e49b69c1
DATA constants<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA constants<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA constants<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA constants<>+96(SB)/8, $0xa831c66d983e5152
DATA constants<>+104(SB)/8, $0xbf597fc7b00327c8
DATA constants<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA constants<>+120(SB)/8, $0x1429296706ca6351
DATA constants<>+128(SB)/8, $0x2e1b213827b70a85
DATA constants<>+136(SB)/8, $0x53380d134d2c6dfc
DATA constants<>+144(SB)/8, $0x766a0abb650a7354
DATA constants<>+152(SB)/8, $0x92722c8581c2c92e
DATA constants<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA constants<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA constants<>+176(SB)/8, $0xd6990624d192e819
DATA constants<>+184(SB)/8, $0x106aa070f40e3585
DATA constants<>+192(SB)/8, $0x1e376c0819a4c116
DATA constants<>+200(SB)/8, $0x34b0bcb52748774c
DATA constants<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA constants<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA constants<>+224(SB)/8, $0x78a5636f748f82ee
DATA constants<>+232(SB)/8, $0x8cc7020884c87814
DATA constants<>+240(SB)/8, $0xa4506ceb90befffa
DATA constants<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL constants<>(SB), NOPTR|RODATA, $256

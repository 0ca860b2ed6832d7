// Package password hashes, checks and judges passwords.
//
// A [Hasher] makes Argon2id hashes (RFC 9106) in the PHC string format, and verifies those and,
// for imported users, bcrypt hashes. A hash takes tens of milliseconds and many megabytes by
// design, which makes it the cheapest way to exhaust a server. So a Hasher computes a fixed number
// at a time, lets a fixed number wait, and turns away the rest with [ErrBusy].
//
// A [Policy] says which passwords may be chosen. Nothing but the policy may reject a password
// at registration, and nothing of the policy applies at login: a rule made stricter later locks
// nobody out.
//
// Passwords are compared in Unicode normalization form C, since the same characters arrive
// composed from one device and decomposed from another.
package password

// Package acmetest tests tlsauto against Pebble, a small ACME authority, which runs in the process of
// the test: nothing leaves the machine, no port is fixed, and no program is needed.
//
// It is a module of its own, so that what Pebble needs stays out of the library's go.mod. There is
// nothing here but tests:
//
//	go test -short ./...   issues and renews once under traffic, in a few seconds
//	go test ./...          outages, restarts, several instances, and all that autocert alone lacks
package acmetest

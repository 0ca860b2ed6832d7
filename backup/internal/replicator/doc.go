// Package replicator is the child half of package backup: Litestream, in a process of its own.
package replicator

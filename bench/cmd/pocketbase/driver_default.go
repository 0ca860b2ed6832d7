//go:build !no_default_driver

package main

import "github.com/pocketbase/pocketbase/core"

// connect is nil: PocketBase opens its files as shipped.
var connect core.DBConnectFunc

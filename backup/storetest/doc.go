// Package storetest tests replicas in gs, abs and nats against servers that speak the protocols of
// these stores: fake-gcs-server and the server of NATS, within the test, and Azurite, which npm
// installs. It is a module of its own, so that Bedplate does not depend on them.
//
// Of each store the same is wanted: a program that is killed loses nothing, any transaction can be
// had back, an outage is told and made good, what is damaged is refused, and of many that want the
// lease one gets it.
package storetest

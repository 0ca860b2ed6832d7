package idp

import (
	"net/netip"
	"testing"
)

func TestC13_Public(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
		"203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
		"64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "3fff::1", "fc00::1", "fd00::1",
		"fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1",
	} {
		if public(netip.MustParseAddr(address)) {
			t.Errorf("%s is public", address)
		}
	}
	for _, address := range []string{
		"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "223.255.255.255",
		"::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111", "2a00:1450::1", "2001:4860::8888",
	} {
		if !public(netip.MustParseAddr(address)) {
			t.Errorf("%s is not public", address)
		}
	}
	for _, bad := range []struct{ network, address string }{
		{"udp4", "8.8.8.8:443"}, {"unix", "/run/socket"}, {"tcp4", "example.com:443"}, {"tcp4", ""},
	} {
		if publicOnly(bad.network, bad.address, nil) == nil {
			t.Errorf("%v may be dialled", bad)
		}
	}
}

func TestC12_Client(t *testing.T) {
	t.Parallel()
	if c := newClient(nil, false); c.Timeout != requestTime {
		t.Errorf("timeout %v", c.Timeout)
	}
	if tr := newTransport(false); tr.Proxy != nil {
		t.Error("proxies of the environment are used")
	}
}

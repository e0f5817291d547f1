// What the agent asks of an API server that is down waits until it is back. client-go would ask again by itself, but
// after each failure it waits longer, up to a minute, and a test that cuts the API server would wait with it.
package main

import (
	"net/http"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

const askEvery = 200 * time.Millisecond

// patient repeats what reads, as long as its context lives, also what was refused: an API server that still starts
// knows no rights.
type patient struct{ http.RoundTripper }

func (p patient) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := p.RoundTripper.RoundTrip(request)
	for request.Method == http.MethodGet && tooEarly(response, err) {
		if response != nil {
			response.Body.Close()
		}
		if !p.ready(request) {
			return nil, request.Context().Err()
		}
		if response, err = p.RoundTripper.RoundTrip(request); err == nil {
			break
		}
	}
	return response, err
}

func tooEarly(response *http.Response, err error) bool {
	if err != nil {
		return utilnet.IsConnectionRefused(err)
	}
	switch response.StatusCode {
	case http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	}
	return false
}

// ready waits until the API server says that it is; false if nobody waits for the answer any more.
func (p patient) ready(request *http.Request) bool {
	probe := request.Clone(request.Context())
	probe.URL.Path, probe.URL.RawPath, probe.URL.RawQuery = "/readyz", "", ""
	for {
		response, err := p.RoundTripper.RoundTrip(probe)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-request.Context().Done():
			return false
		case <-time.After(askEvery):
		}
	}
}

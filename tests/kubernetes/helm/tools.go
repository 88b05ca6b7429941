//go:build tools

// Package tools names what the tests build, so that its version and those of all it needs are pinned here.
package tools

import _ "helm.sh/helm/v3/cmd/helm"

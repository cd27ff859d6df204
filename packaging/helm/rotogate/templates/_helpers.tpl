{{/* The name of everything: that of the release, which says "rotogate" once. */}}
{{- define "rotogate.name" -}}
{{- if contains "rotogate" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-rotogate" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "rotogate.selector" -}}
app.kubernetes.io/name: rotogate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rotogate.labels" -}}
{{ include "rotogate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* A TOML array of texts: JSON's is one. */}}
{{- define "rotogate.texts" -}}
{{- . | toJson -}}
{{- end -}}

{{/* The configuration of each pod. What the chart mounts is named here; the rest is that of the values. */}}
{{- define "rotogate.toml" -}}
[server]
listen = "0.0.0.0:8080"
public_url = {{ .Values.publicUrl | toJson }}
trusted_proxies = {{ include "rotogate.texts" .Values.trustedProxies }}
drain_timeout = "{{ .Values.drainSeconds }}s"
{{- with .Values.server }}
{{ . | trim }}
{{- end }}

[admin]
listen = "0.0.0.0:8081"
dangerous_non_loopback = true
probes = "0.0.0.0:8083"
hosts = ["{{ include "rotogate.name" . }}-admin.{{ .Release.Namespace }}.svc"]
token_file = "/etc/rotogate-admin/token"

[[admin.tokens]]
name = "prometheus"
role = "viewer"
file = "/etc/rotogate-admin/metrics"

[issuer]
audience = {{ include "rotogate.texts" .Values.audience }}
keys = "/etc/rotogate-keys"

[store]
kind = {{ .Values.store.kind | toJson }}
{{- if eq .Values.store.kind "redis" }}
urls = {{ include "rotogate.texts" .Values.store.urls }}
{{- with .Values.store.username }}
username = {{ . | toJson }}
{{- end }}
{{- else }}
url = {{ .Values.store.url | toJson }}
{{- end }}
password_file = "/etc/rotogate-store/password"
mark = "/var/lib/rotogate/store.mark"
{{- with .Values.store.options }}
{{ . | trim }}
{{- end }}
{{- if .Values.secrets.users }}

[directory]
kind = "file"
path = "/etc/rotogate-users/users.toml"
{{- end }}

{{ .Values.config | trim }}
{{- end -}}

{{- define "roomcast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "roomcast.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "roomcast.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "roomcast.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "roomcast.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "roomcast.selector" -}}
app.kubernetes.io/name: {{ include "roomcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end -}}

{{- define "roomcast.redisSelector" -}}
app.kubernetes.io/name: {{ include "roomcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: redis
{{- end -}}

{{- /* Of objects, not of selectors. */ -}}
{{- define "roomcast.labels" -}}
app.kubernetes.io/name: {{ include "roomcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "roomcast.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* A value as TOML on one line. Every JSON text is a TOML text. */ -}}
{{- define "roomcast.toml" -}}
{{- if kindIs "map" . -}}
{{- $items := list -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $items = append $items (printf "%s = %s" (toJson $key) (include "roomcast.toml" $value)) -}}
{{- end -}}
{{- end -}}
{ {{ join ", " $items }} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- $items = append $items (include "roomcast.toml" .) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{- /* What the chart knows better than the values, as YAML. */ -}}
{{- define "roomcast.settings" -}}
{{- $files := list -}}
{{- range .Values.contracts.embedded -}}
{{- $files = append $files (printf "embedded:%s" .) -}}
{{- end -}}
{{- if .Values.contracts.inline -}}
{{- $files = append $files "/etc/roomcast/contracts/inline" -}}
{{- end -}}
{{- range .Values.contracts.configMaps -}}
{{- $files = append $files (printf "/etc/roomcast/contracts/%s" .) -}}
{{- end -}}
server:
  listen: {{ printf "%s:3000" .Values.listenAddress | quote }}
api:
  listen: {{ printf "%s:3001" .Values.listenAddress | quote }}
contracts:
  files: {{ toJson $files }}
{{- if .Values.cluster.enabled }}
cluster:
  listen: {{ printf "%s:3002" .Values.listenAddress | quote }}
{{- end }}
drain:
  # Before SIGTERM, preStop has already waited for load balancers.
  delay: 0s
  deadline: {{ .Values.drain.deadline }}s
{{- if .Values.redis.trial.enabled }}
redis:
  url: redis://{{ include "roomcast.fullname" . }}-redis:6379
{{- end }}
{{- end -}}

{{- /* Seconds from the decision that a pod goes to its end: preStop, the way out, and Redis' time-outs. */ -}}
{{- define "roomcast.grace" -}}
{{- add .Values.drain.endpoints .Values.drain.deadline 5 -}}
{{- end -}}

{{- define "roomcast.config" -}}
{{- range $section, $keys := mergeOverwrite (deepCopy .Values.config) (include "roomcast.settings" . | fromYaml) -}}
{{- if $keys }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "roomcast.toml" $value }}
{{- end }}
{{- end }}
{{ end -}}
{{- end -}}
{{- end -}}

{{- /* The variable that names the file of a secret: `redis.url` is ROOMCAST_REDIS__URL_FILE. */ -}}
{{- define "roomcast.variable" -}}
{{- printf "ROOMCAST_%s_FILE" (. | replace "." "__" | replace "-" "_" | upper) -}}
{{- end -}}

{{- define "roomcast.ownSecrets" -}}
{{- range $key, $from := .Values.secrets -}}
{{- if hasKey $from "value" }}
{{ $key }}: {{ $from.value | b64enc | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Whether the nodes share a Redis: "yes" or nothing. */ -}}
{{- define "roomcast.hasRedis" -}}
{{- $redis := default dict .Values.config.redis -}}
{{- if or .Values.redis.trial.enabled $redis.url $redis.url_file (hasKey .Values.secrets "redis.url") -}}yes{{- end -}}
{{- end -}}

{{- /* Whether there may be several nodes: "yes" or nothing. */ -}}
{{- define "roomcast.many" -}}
{{- $v := .Values -}}
{{- if gt (int (ternary $v.autoscaling.maxReplicas $v.replicaCount $v.autoscaling.enabled)) 1 -}}yes{{- end -}}
{{- end -}}

{{- /* `helm test`'s pod. */ -}}
{{- define "roomcast.testSelector" -}}
app.kubernetes.io/name: {{ include "roomcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end -}}

{{- /* Combinations that a schema cannot refuse. */ -}}
{{- define "roomcast.check" -}}
{{- $v := .Values -}}
{{- if not (or $v.contracts.embedded $v.contracts.inline $v.contracts.configMaps) -}}
{{- fail "no contracts: set contracts.embedded (for a trial, [chat]), contracts.inline or contracts.configMaps" -}}
{{- end -}}
{{- if and (include "roomcast.many" .) (not (include "roomcast.hasRedis" .)) -}}
{{- fail "more than one node needs Redis: set secrets.redis\\.url, config.redis.url, or for a trial redis.trial.enabled" -}}
{{- end -}}
{{- $redis := default dict $v.config.redis -}}
{{- if and $v.redis.trial.enabled (or $redis.url $redis.url_file (hasKey $v.secrets "redis.url")) -}}
{{- fail "redis.trial.enabled and a Redis of your own: choose one" -}}
{{- end -}}
{{- if and $v.cluster.enabled (not (include "roomcast.hasRedis" .)) -}}
{{- fail "cluster.enabled needs Redis: nodes learn of each other there" -}}
{{- end -}}
{{- if and $v.cluster.enabled (not (hasKey $v.secrets "cluster.secret")) -}}
{{- fail "cluster.enabled needs secrets.cluster\\.secret: what nodes know each other by" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (not (or $v.autoscaling.cpu.enabled $v.autoscaling.connections.enabled)) -}}
{{- fail "autoscaling needs autoscaling.cpu.enabled or autoscaling.connections.enabled" -}}
{{- end -}}
{{- if and $v.metrics.serviceMonitor.enabled $v.metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor would scrape every node twice: choose one" -}}
{{- end -}}
{{- end -}}

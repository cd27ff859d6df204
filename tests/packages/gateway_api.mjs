// Reads resources of Gateway API from standard input, and writes what its schemas find wrong with each.
import { readFileSync } from 'node:fs';

const schema = async (name) => (await import(`@kubernetes-models/gateway-api/_schemas/IoK8sSigsGatewayApiApis${name}`)).validate;
const kinds = { HTTPRoute: await schema('V1HTTPRoute'), ReferenceGrant: await schema('V1beta1ReferenceGrant') };
const externalAuth = await schema('V1HTTPExternalAuthFilter');

const wrong = [];
const judge = (validate, value, at) => {
    if (!validate(value)) wrong.push(...validate.errors.map((error) => `${at}${error.instancePath}: ${error.keyword} ${JSON.stringify(error.params)}`));
};

for (const resource of JSON.parse(readFileSync(0, 'utf8'))) {
    for (const [index, rule] of (resource.spec.rules ?? []).entries()) {
        // The list of types in the schema of a route is that of the standard channel, and ends before this one.
        const external = (rule.filters ?? []).filter((filter) => filter.type === 'ExternalAuth');
        external.forEach((filter) => judge(externalAuth, filter.externalAuth, `${resource.kind} rule ${index} externalAuth`));
        if (external.length > 0) rule.filters = rule.filters.filter((filter) => !external.includes(filter));
    }
    judge(kinds[resource.kind], resource, resource.kind);
}
console.log(JSON.stringify(wrong));

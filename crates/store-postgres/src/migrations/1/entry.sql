-- Entries of the revocation list: how two of a target merge, and what they hold against a session.

-- Effects: kind, then three numbers. M minimum, effective from, before; N moment; G nothing.
create function {s}.rg_merge(a bytea, b bytea) returns bytea language sql immutable strict as $$
    select case
        when get_byte(a, 0) = 71 or get_byte(b, 0) = 71 then '\x47000000000000000000000000000000000000000000000000'::bytea
        when get_byte(a, 0) = 78 and get_byte(b, 0) = 78 then
            '\x4e'::bytea || greatest(substr(a, 2, 8), substr(b, 2, 8)) || '\x00000000000000000000000000000000'::bytea
        when get_byte(a, 0) = 78 then b
        when get_byte(b, 0) = 78 then a
        when greatest(substr(a, 2, 8), substr(b, 2, 8)) = '\xffffffffffffffff'::bytea then
            '\x4dffffffffffffffff00000000000000000000000000000000'::bytea
        else
            '\x4d'::bytea || greatest(substr(a, 2, 8), substr(b, 2, 8))
            || case
                when substr(a, 2, 8) = substr(b, 2, 8) then least(substr(a, 10, 8), substr(b, 10, 8))
                when substr(a, 2, 8) > substr(b, 2, 8) then substr(a, 10, 8)
                else substr(b, 10, 8)
            end
            || greatest(
                substr(a, 18, 8),
                substr(b, 18, 8),
                case
                    when substr(a, 2, 8) = substr(b, 2, 8) then '\x0000000000000000'::bytea
                    else least(substr(a, 2, 8), substr(b, 2, 8))
                end
            )
    end
$$;

-- The moment of the latest not-before among these targets.
create function {s}.rg_moment(p_keys bytea[]) returns bytea language sql stable as $$
    select case when get_byte(effect, 0) = 78 then substr(effect, 2, 8) else '\xffffffffffffffff'::bytea end
    from {s}.revocation where key = any(p_keys) order by 1 desc limit 1
$$;

-- Merges an entry with the one of its target. The lock of the log is held before an id is taken: readers tell by it that
-- an id may yet appear. Entries of one target get their ids in the order of their commits.
create function {s}.rg_absorb(
    p_key bytea, p_target bytea, p_effect bytea, p_until bigint,
    out o_effect bytea, out o_until bigint, out o_changed boolean
) language plpgsql as $$
declare
    known {s}.revocation%rowtype;
    at_id bigint;
begin
    select * into known from {s}.revocation where key = p_key for update;
    if not found then
        o_effect := {s}.rg_merge(p_effect, p_effect);
        o_until := p_until;
        o_changed := true;
        insert into {s}.revocation_log (written, target, effect, until)
            values ({s}.rg_now(), p_target, o_effect, o_until) returning id into at_id;
        insert into {s}.revocation (key, target, effect, until, place)
            values (p_key, p_target, o_effect, o_until, at_id) on conflict (key) do nothing;
        if found then
            return;
        end if;
        -- Another writer was first.
        delete from {s}.revocation_log where id = at_id;
        select * into strict known from {s}.revocation where key = p_key for update;
    end if;
    o_effect := {s}.rg_merge(known.effect, p_effect);
    o_until := greatest(known.until, p_until);
    o_changed := o_effect <> known.effect or o_until <> known.until;
    if o_changed then
        insert into {s}.revocation_log (written, target, effect, until)
            values ({s}.rg_now(), p_target, o_effect, o_until) returning id into at_id;
        update {s}.revocation set effect = o_effect, until = o_until, place = at_id where key = p_key;
    end if;
end
$$;
